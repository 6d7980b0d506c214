//! The ids by which hubs recognise this run of the program.

use sha2::{Digest as _, Sha256};

use crate::{conference::HubRef, model::Instance};

/// The instance ids of this run: a different one for each hub. So two hubs, or members of sessions
/// at both, cannot tell from the ids that two participants are the same user. A hub compares the
/// ids of its own clients only.
pub(super) struct Instances {
    secret: [u8; 32],
}

impl Instances {
    /// Returns the ids of a new run, derived from a random secret.
    ///
    /// # Errors
    /// Fails if the system gives no random bytes.
    pub(super) fn fresh() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret })
    }

    /// Returns the instance id for a hub. It stays the same as long as the program runs, and looks
    /// random to the hub.
    pub(super) fn for_hub(&self, hub: &HubRef) -> Instance {
        let name = match hub {
            HubRef::Default => "",
            HubRef::At(url) => url.as_str(),
        };
        let digest = Sha256::new().chain_update(self.secret).chain_update(name).finalize();
        let bits = digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        Instance::from_random(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hub_gets_its_own_instance_id_that_stays_for_the_run() {
        let run = Instances::fresh().unwrap();
        let hubs = [
            HubRef::Default,
            HubRef::At("http://192.0.2.1:7340".parse().unwrap()),
            HubRef::At("http://192.0.2.2:7340".parse().unwrap()),
        ];
        let ids: Vec<_> = hubs.iter().map(|hub| run.for_hub(hub)).collect();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), hubs.len(), "{ids:?}");
        assert_eq!(ids, hubs.iter().map(|hub| run.for_hub(hub)).collect::<Vec<_>>());
        assert_ne!(
            run.for_hub(&HubRef::Default),
            Instances::fresh().unwrap().for_hub(&HubRef::Default)
        );
    }
}
