"""Helpers of the tests: made-up scenes, models, servers and the contract of matchers."""
