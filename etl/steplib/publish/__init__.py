"""Publishing a finished run, the proof of a run, and the overview of all runs."""
