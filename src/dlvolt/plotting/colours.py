"""The colours of Okabe and Ito, which all eyes can tell apart, and two greys."""

BLUE, ORANGE, GREEN, PINK, RED, SKY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PINK, RED, SKY)
DARK, GREY = "#333333", "#999999"
