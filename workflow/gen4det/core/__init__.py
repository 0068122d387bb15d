"""What everything stands on: settings, errors, files, provenance, progress."""
