"""The parts of `LocalServer`."""
