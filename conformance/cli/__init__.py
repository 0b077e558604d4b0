"""The command line: a file for each of ``xopt conform``, ``xopt faults``, ``xopt evidence`` and ``xopt bench``."""
