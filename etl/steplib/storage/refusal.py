"""Whether a storage has refused a request, or could not be reached."""

import re
from collections.abc import Iterator
from http import HTTPStatus

# HTTP statuses that repeating does not change; not a timeout, a conflict with a different writer, too many requests.
REFUSED = {*range(400, 500)} - {408, 409, 429}
# How clients report a refusal or a wrong configuration without a status, apart from PermissionError.
NAMES = (
    "credential|forbidden|unauthori[sz]ed|authenticat|token|profile|endpoint:|specified endpoint|validation"
    "|signing|refresh|bad request"
)


def is_refusal(error: BaseException) -> bool:
    """Return whether trying again does not help: by the HTTP status if there is one, else by the errors' names."""
    causes, status = list(_causes(error)), status_of(error)
    # Search the text for nothing but this word, because it quotes addresses.
    if any("CERTIFICATE_VERIFY_FAILED" in str(each) for each in causes):
        return True
    # Google's clients mark errors that may pass.
    if any(getattr(each, "retryable", False) for each in causes):
        return False
    # A redirect to a different region is a wrong setting; its text says so.
    if status and status >= HTTPStatus.BAD_REQUEST:
        return status in REFUSED
    # Read the text of these two types only: their type says nothing, and the text of other errors quotes addresses.
    texts = [f"{type(each).__name__} {each if type(each) in {OSError, ValueError} else ''}" for each in causes]
    return isinstance(error, PermissionError) or any(re.search(NAMES, text, re.IGNORECASE) for text in texts)


def status_of(error: BaseException | None) -> int | None:
    """Return the HTTP status in a client's error or in one of its causes, None if there is none."""
    for each in _causes(error):
        # For an answer that was cut off, the client makes up a status.
        if type(each).__module__ == "aiohttp.http_exceptions":
            continue
        # gcsfs gives no other sign of this status.
        if type(each) is OSError and str(each).startswith("Forbidden: "):
            return HTTPStatus.FORBIDDEN
        response = getattr(each, "response", None)
        of_botocore = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
        for found in (of_botocore, *(getattr(each, name, None) for name in ("status_code", "code", "status"))):
            if isinstance(found, int) and found in range(100, 600):
                return int(found)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    while error:
        yield error
        error = error.__cause__
