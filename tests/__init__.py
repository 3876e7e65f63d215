"""The tests: a folder for each package of the library, and what they share in reference/ and support/."""
