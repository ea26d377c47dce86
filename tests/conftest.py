"""Tests keep nothing in the user's cache, and find nothing there."""

import os

os.environ["GBP_CACHE"] = "off"
