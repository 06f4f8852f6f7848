"""Publishing a finished run, the proof of what is there, and the overview of all runs."""
