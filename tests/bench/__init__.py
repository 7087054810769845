"""How fast and how small Flux is, on this machine: `python -m tests.bench`. Printed and kept, never asserted."""
