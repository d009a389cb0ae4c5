"""What a person does with the result of a run: review contracts of one's own with its champion.

For example, in a notebook, a page with the clauses of a contract marked in its text:

    review.contract("runs/quickstart", "supply.pdf")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "export": ["export_system"],
        "reviewer": ["Document", "Review", "Reviewer"],
        "notebook": ["contract"],
    },
)
