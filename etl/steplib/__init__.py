"""What the scripts share; docs/development.md shows the rooms and who may import whom."""
