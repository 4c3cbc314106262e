"""What this tool asks of the machine and its system: processes, signals, whole files, locks, git. Any room may use it."""
