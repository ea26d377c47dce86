"""Make the forward graph plain.

First the file, in a copy (`passes.canonical_model`): functions inlined, initializers taken off the input list, old
opsets lifted. Then the
view that derivatives walk (`view.View`): rectifiers in all their forms, and the head, stand in one node each. The view
changes no node of the file.
"""
