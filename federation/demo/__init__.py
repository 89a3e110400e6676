"""``federation demo``: a hospital's database and a cloud come up, and what this toolkit does is seen and checked.

The toolkit does not know what is stored: rows and queries are the deployment's, in the module that federation.toml
names (``[demo] module``). `material` says what such a module holds.
"""

from federation.demo.material import Read, Table
from federation.demo.story import tell

__all__ = ["Read", "Table", "tell"]
