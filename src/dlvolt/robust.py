"""How the size of noise is told from its median, which spikes hardly move."""

GAUSSIAN_MAD = 0.6744897501960817  # median of |z| for z ~ N(0, 1): a median size over this is a standard deviation
