"""What the four steps share; the scripts in `etl/` import it, nothing here imports a script."""
