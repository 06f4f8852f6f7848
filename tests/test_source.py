"""What is shown of an address."""

import pytest
from steplib.source.address import redact


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:Zq7Secret@host:8443/a b/ü-1.csv?token=Zq7Secret#x", "https://***@host:8443/a b/ü-1.csv"),
        ("HTTP://host", "HTTP://host"),
        ("http://host/a/x;v=1/b.csv", "http://host/a/***"),
        ("some folder/ü%20-1.csv", "some folder/ü%20-1.csv"),
        ("s3://bucket/key", "s3://***"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    """A path and a plain web address are shown as they are."""
    assert redact(url) == shown
