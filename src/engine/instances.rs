//! What this run of the program is called at each hub.

use sha2::{Digest as _, Sha256};

use crate::{conference::HubRef, model::Instance};

/// The instances of this run: one for each hub, so that two hubs, or members of sessions at both,
/// do not learn from them that two participants are one person. They are compared at one hub only.
pub(super) struct Instances {
    secret: [u8; 32],
}

impl Instances {
    /// Those of a new run.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub(super) fn fresh() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { secret })
    }

    /// The instance at a hub: the same as long as the program runs, and for nobody to be told from a
    /// random one.
    pub(super) fn at(&self, hub: &HubRef) -> Instance {
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
    fn each_hub_is_told_an_instance_of_its_own_that_stays_for_the_run() {
        let run = Instances::fresh().unwrap();
        let hubs = [
            HubRef::Default,
            HubRef::At("http://192.0.2.1:7340".parse().unwrap()),
            HubRef::At("http://192.0.2.2:7340".parse().unwrap()),
        ];
        let told: Vec<_> = hubs.iter().map(|hub| run.at(hub)).collect();
        let distinct: std::collections::BTreeSet<_> = told.iter().collect();
        assert_eq!(distinct.len(), hubs.len(), "{told:?}");
        assert_eq!(told, hubs.iter().map(|hub| run.at(hub)).collect::<Vec<_>>());
        assert_ne!(run.at(&HubRef::Default), Instances::fresh().unwrap().at(&HubRef::Default));
    }
}
