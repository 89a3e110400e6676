"""Starts and stops real PostgreSQL servers: a hospital's and a Supabase-like cloud, for demo, tests and benchmarks.

with Pair() as pair:
    os.environ.update(pair.environment())
"""

from federation.servers.binaries import Binaries, default_binaries, find_binaries
from federation.servers.pair import Pair
from federation.servers.server import Server

__all__ = ["Binaries", "Pair", "Server", "default_binaries", "find_binaries"]
