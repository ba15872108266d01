"""A node's membership in its cluster: joining by a token, its certificate, renewal, and how it dials its supernode.

`record` is what is kept, `requests` what is asked for, `dialer` how a session is dialled, `refusals` the one line that
says why it was not. Nothing here knows sessions or blobs.
"""
