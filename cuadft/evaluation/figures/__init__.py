"""Figures of the project: each function takes a table or a log and returns a matplotlib Figure.

No function saves or shows its Figure. As the last line of a notebook cell it shows itself; `evaluation.save` writes it.

    scores      systems, differences, categories, searches and losses
    stream      iterations and slices of the stream
    training    how alignment went
    confidence  whether stated probabilities hold
    published   our results beside published ones
"""
