"""A recipe becomes votes, and votes a selection."""

__all__ = [
    "conditions",
    "ensembles",
    "library",
    "recipe",
    "selections",
    "table_view",
    "uid_lists",
    "votes",
    "yaml_text",
]
