"""Review tracking: a prescription may name the day of the next review, and its review is kept beside it."""

import sqlalchemy as sa
from alembic import op

from federation.operations import LINK, SERVICE

revision = "0002"
down_revision = "0001"

# The app's trigger, qualified: the link's sessions run with search_path = pg_catalog. It runs as whoever writes the
# prescription, so the policies judge its rows too. A review that staff closed by hand is opened again only when the
# prescription is given another day or is no longer cancelled, not when it is dispensed.
TRACK_REVIEW = """
CREATE FUNCTION public.track_prescription_review() RETURNS trigger
    LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    planned_anew CONSTANT boolean := tg_op = 'INSERT' OR old.status = 'cancelled'
        OR old.next_review_date IS DISTINCT FROM new.next_review_date;
BEGIN
    IF new.next_review_date IS NULL OR new.status = 'cancelled' THEN
        UPDATE public.hospital_patient_reviews AS review
        SET status = 'cancelled', cancelled_at = now(), updated_at = now()
        WHERE review.source_prescription_id = new.id AND review.status = 'pending';
    ELSIF new.patient_id IS NOT NULL THEN
        INSERT INTO public.hospital_patient_reviews AS review (hospital_id, patient_id, doctor_id,
            source_prescription_id, source_queue_id, next_review_date, tests_to_review, specialists_to_review)
        VALUES (new.hospital_id, new.patient_id, new.doctor_id,
            new.id, new.queue_id, new.next_review_date, new.tests_to_review, new.specialists_to_review)
        ON CONFLICT (source_prescription_id) DO UPDATE SET
            patient_id = excluded.patient_id,
            doctor_id = excluded.doctor_id,
            source_queue_id = excluded.source_queue_id,
            next_review_date = excluded.next_review_date,
            tests_to_review = excluded.tests_to_review,
            specialists_to_review = excluded.specialists_to_review,
            status = CASE WHEN review.status = 'cancelled' AND planned_anew THEN 'pending' ELSE review.status END,
            cancelled_at = CASE WHEN planned_anew THEN NULL ELSE review.cancelled_at END,
            updated_at = now();
    END IF;
    RETURN NULL;
END $function$
"""


def upgrade() -> None:
    op.lock_tables("hospital_patients", "hospital_queues", "hospital_prescriptions")
    op.add_column("hospital_prescriptions", sa.Column("next_review_date", sa.Date()))
    op.add_column("hospital_prescriptions", sa.Column("tests_to_review", sa.Text()))
    op.add_column("hospital_prescriptions", sa.Column("specialists_to_review", sa.Text()))
    op.create_index("hospital_prescriptions_next_review_date_idx", "hospital_prescriptions", ["next_review_date"])

    op.create_table(
        "hospital_patient_reviews",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("hospital_id", sa.Uuid(), nullable=False),
        sa.Column("patient_id", sa.Uuid(), nullable=False),
        sa.Column("doctor_id", sa.Uuid()),
        sa.Column("source_prescription_id", sa.Uuid()),
        sa.Column("source_queue_id", sa.Uuid()),
        sa.Column("next_review_date", sa.Date()),
        sa.Column("tests_to_review", sa.Text()),
        sa.Column("specialists_to_review", sa.Text()),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        sa.Column("checked_in_queue_id", sa.Uuid()),
        sa.Column("checked_in_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True)),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="hospital_patient_reviews_pkey"),
        sa.UniqueConstraint("source_prescription_id", name="hospital_patient_reviews_source_prescription_id_key"),
        sa.ForeignKeyConstraint(
            ["patient_id"],
            ["hospital_patients.id"],
            name="hospital_patient_reviews_patient_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["source_prescription_id"],
            ["hospital_prescriptions.id"],
            name="hospital_patient_reviews_source_prescription_id_fkey",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["source_queue_id"],
            ["hospital_queues.id"],
            name="hospital_patient_reviews_source_queue_id_fkey",
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["checked_in_queue_id"],
            ["hospital_queues.id"],
            name="hospital_patient_reviews_checked_in_queue_id_fkey",
            ondelete="SET NULL",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'rescheduled', 'completed', 'cancelled')",
            name="hospital_patient_reviews_status_check",
        ),
    )
    op.create_index(
        "hospital_patient_reviews_due_idx", "hospital_patient_reviews", ["hospital_id", "status", "next_review_date"]
    )
    op.create_index(
        "hospital_patient_reviews_patient_id_next_review_date_idx",
        "hospital_patient_reviews",
        ["patient_id", sa.text("next_review_date DESC")],
    )
    op.create_site_check("hospital_patient_reviews", "hospital_id")
    op.enable_row_level_security("hospital_patient_reviews")
    op.create_policy("own_rows", "hospital_patient_reviews", using="(SELECT auth.uid()) = hospital_id")
    op.create_policy(
        "federation_service", "hospital_patient_reviews", using="true", with_check="true", roles=(SERVICE,)
    )
    op.grant(("SELECT", "INSERT", "UPDATE", "DELETE"), "hospital_patient_reviews", to=(LINK, "authenticated", SERVICE))

    # Alembic has no operations for functions and triggers.
    op.execute(TRACK_REVIEW)
    op.execute("REVOKE ALL ON FUNCTION public.track_prescription_review() FROM PUBLIC")
    op.execute(
        "CREATE TRIGGER track_review AFTER INSERT OR UPDATE OF "
        "queue_id, status, next_review_date, tests_to_review, specialists_to_review "
        "ON public.hospital_prescriptions FOR EACH ROW EXECUTE FUNCTION public.track_prescription_review()"
    )


def downgrade() -> None:
    op.lock_tables("hospital_patients", "hospital_queues", "hospital_prescriptions", "hospital_patient_reviews")
    op.execute("DROP TRIGGER track_review ON public.hospital_prescriptions")
    op.execute("DROP FUNCTION public.track_prescription_review()")
    op.drop_table("hospital_patient_reviews")
    for column in ("specialists_to_review", "tests_to_review", "next_review_date"):
        op.drop_column("hospital_prescriptions", column)
