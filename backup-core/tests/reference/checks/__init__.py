"""What is checked with the reference reader: `sh scripts/reference.sh`."""
