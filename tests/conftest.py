"""For all tests: a first call compiles, so no example has a deadline (each test has one, by pytest)."""

from hypothesis import settings

settings.register_profile("vfwire", deadline=None)
settings.load_profile("vfwire")
