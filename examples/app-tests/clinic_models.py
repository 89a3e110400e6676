"""The clinic's tables as they are at head."""

import sqlalchemy as sa

metadata = sa.MetaData()

pets = sa.Table(
    "pets",
    metadata,
    sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
    sa.Column("user_id", sa.Uuid(), nullable=False),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("chip", sa.Text()),
    sa.PrimaryKeyConstraint("id", name="pets_pkey"),
)

visits = sa.Table(
    "visits",
    metadata,
    sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
    sa.Column("user_id", sa.Uuid(), nullable=False),
    sa.Column("pet_id", sa.Uuid(), nullable=False),
    sa.Column("day", sa.Date(), nullable=False),
    sa.Column("status", sa.Text(), server_default=sa.text("'planned'"), nullable=False),
    sa.PrimaryKeyConstraint("id", name="visits_pkey"),
    sa.ForeignKeyConstraint(["pet_id"], ["pets.id"], name="visits_pet_id_fkey", ondelete="CASCADE"),
    sa.CheckConstraint("status IN ('planned', 'done')", name="visits_status_check"),
)
