"""Lists the signals that end a run."""

import signal

# Ctrl-C, the end of a batch job or of the system, a closed terminal; Windows has no SIGHUP.
ENDING_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
