"""The supernode's HTTP API: one module a resource, one table of routes.

To add a route, write `async def NAME(parts: ApiParts, request: web.Request) -> web.StreamResponse` in the module of its
resource and add its line to `routes.ROUTES`: two files, one where the resource exists. What a handler needs and
`parts.ApiParts` lacks is added there and in supernode.app. A peer's routes are the table in peer.status.

No answer names a credential, and no payload passes here.
"""
