"""The page of a run: what a clinician and a statistician need to judge its model."""
