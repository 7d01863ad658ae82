"""One dataclass a component: its types, ranges and one line of help a setting. No values."""
