"""What each habit that the doctor names costs: the line as found beside the line as advised, measured in one run."""
