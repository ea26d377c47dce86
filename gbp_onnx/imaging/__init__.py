"""Pixels: photographs in, attributions drawn and written. The only folder that imports Pillow.

photo       a file, PIL image or array -> upright 8-bit RGB
preprocess  what the model wants, and the photograph brought to it
render      an attribution -> a picture
figure      pictures -> the figure with titles
write       pictures and arrays -> files that appear whole or not at all
"""
