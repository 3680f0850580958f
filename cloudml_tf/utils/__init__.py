"""Files, locks, signals, console, errors: no science."""
