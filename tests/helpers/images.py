"""Images of a collection, with labels drawn by a seed."""

from nlp_ssl.data.images import named_images


def load_images(name, labels_per_class, seed, *, folder=None, **sizes):
    """The rows of a run; `sizes` are `dev_per_class` and `pool_size`."""
    return named_images(name, folder).draw(labels_per_class, seed, **sizes)
