"""What looks after the repository: system packages, locks, generated files. Not part of anything that ships."""
