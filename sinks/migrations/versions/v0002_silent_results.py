"""Results of silent replays, which are kept beside users' own."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """What is there was made for users."""
    op.add_column("results", sa.Column("silent", sa.Boolean(), nullable=False, server_default=sa.false()))
