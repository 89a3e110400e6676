"""The testers' kit: a pytest plugin that gives each test a migrated pair of databases, linked, isolated, as any caller.

``federation_pair`` is the fixture (`federation.testing.pair.FederationPair`), ``federation`` the marker, and
``from federation.testing.checks import *`` the checks of a whole federation. docs/test.md shows all of it.
"""
