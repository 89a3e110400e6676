"""The kit's own checks, of both chains and of what they make."""

from federation.testing.checks import *  # noqa: F403
