"""End-to-end tests: the client over real HTTP against LocalServer."""
