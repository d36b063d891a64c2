"""What scikit-learn says of fits that are made here, as a remark on somebody's code, with a path and over two lines."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_remarks() -> Iterator[None]:
    """Leaves out those that whoever trains can do nothing about; also a decorator.

    They are that many classes with few rows each might be numbers of a regression, and that a fit ended at its last
    step: it is taken as it is.
    """
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        yield
