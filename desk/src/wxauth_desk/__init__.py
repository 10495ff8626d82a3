"""A simulated WeChat, a simulated phone, and example sites, for development on a laptop (wxauth-desk).

None of these parts is for production.
"""

__version__ = "0.1.0"
