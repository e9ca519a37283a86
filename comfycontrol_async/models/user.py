"""User: the account behind a token."""

from datetime import datetime

import attrs

from comfycontrol_async.models._enums import UserProvider, UserTier
from comfycontrol_async.models._pydantic import PydanticModel


@attrs.frozen(kw_only=True)
class User(PydanticModel):
    """The account behind the token (API documentation: endpoints/user/get).

    `provider` is documented as required, yet missing from the documentation's own example: None then.
    """

    id: str
    name: str
    email: str
    tier: UserTier
    deleted: bool = False
    provider: UserProvider | None = None
    created_at: datetime
    updated_at: datetime
