//! Leadership: a lease on the database's clock says who may take the lead, the epoch says who has it.

use super::PostgresStore;
use crate::store::Error;
use sqlx::Row;

/// How long a takeover waits for the writes of the leader before it, until the next attempt.
const LOCKS: &str = "SET LOCAL lock_timeout = '2s'";

impl PostgresStore {
    /// Takes the lead where nobody holds it, or this store itself does.
    pub(super) async fn take_lead(&self) -> Result<u64, Error> {
        const WHO: &str = "SELECT url, expires > clock_timestamp() AND holder <> $1 FROM lead";
        let looked = sqlx::query(WHO).bind(&self.member.name).fetch_one(&self.lead).await?;
        if looked.get(1) {
            return Err(Error::Led(looked.get(0)));
        }
        let mut tx = self.lead.begin().await?;
        sqlx::query(LOCKS).execute(&mut *tx).await?;
        // Again, with nobody beside: of several that stand by, one goes on.
        let held =
            sqlx::query("SELECT url, expires > clock_timestamp() AND holder <> $1 FROM lead FOR UPDATE")
                .bind(&self.member.name)
                .fetch_one(&mut *tx)
                .await?;
        if held.get(1) {
            return Err(Error::Led(held.get(0)));
        }
        // Waits for the writes under way, which hold the epoch's row; those that follow see the new one.
        let epoch: i64 = sqlx::query_scalar("UPDATE leader SET epoch = epoch + 1 RETURNING epoch")
            .fetch_one(&mut *tx)
            .await?;
        sqlx::query(
            "UPDATE lead SET epoch = $1, holder = $2, url = $3, expires = clock_timestamp() + make_interval(secs => $4)",
        )
        .bind(epoch)
        .bind(&self.member.name)
        .bind(&self.member.url)
        .bind(self.member.lead.as_secs_f64())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(epoch as u64)
    }

    pub(super) async fn renew(&self, epoch: u64) -> Result<(), Error> {
        let renewed = sqlx::query(
            "UPDATE lead SET expires = clock_timestamp() + make_interval(secs => $1) WHERE epoch = $2",
        )
        .bind(self.member.lead.as_secs_f64())
        .bind(epoch as i64)
        .execute(&self.lead)
        .await?;
        if renewed.rows_affected() == 1 {
            return Ok(());
        }
        let newer: i64 = sqlx::query_scalar("SELECT epoch FROM lead").fetch_one(&self.lead).await?;
        Err(Error::StaleEpoch { ours: epoch, newer: newer as u64 })
    }

    /// Ends the lead now, where it is still this one's.
    pub(super) async fn leave(&self, epoch: u64) -> Result<(), Error> {
        sqlx::query("UPDATE lead SET expires = '-infinity' WHERE epoch = $1")
            .bind(epoch as i64)
            .execute(&self.lead)
            .await?;
        Ok(())
    }
}
