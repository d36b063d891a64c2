"""Views of a store's rows, cut at a length of the test's own."""


def views(store, requests, max_length):
    """As `store.views`, with rows of at most `max_length` tokens."""
    before, store.max_length = store.max_length, max_length
    try:
        return store.views(requests)
    finally:
        store.max_length = before
