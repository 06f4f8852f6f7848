"""Whether a run goes into use: the rule, the predictions that it compares, and what changed since."""
