//! Assigns a colour to each session for as long as it is shown.

use std::collections::BTreeMap;

use eframe::egui::Color32;

use super::theme::SESSION_COLOURS;
use crate::model::{SessionId, Snapshot};

/// The colours of the sessions that are shown.
#[derive(Debug, Default)]
pub(crate) struct SessionColours {
    /// Indices into [`SESSION_COLOURS`].
    indices: BTreeMap<SessionId, usize>,
}

impl SessionColours {
    /// Assigns colours to new sessions and frees those of sessions that are no longer shown.
    ///
    /// A new session gets the least used colour that neither neighbour has.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) {
        let ids: Vec<_> = snapshot.sessions.iter().map(|one| &one.session).collect();
        self.indices.retain(|id, _| ids.contains(&id) || snapshot.is_departing(id));
        for (index, id) in ids.iter().enumerate() {
            if self.indices.contains_key(*id) {
                continue;
            }
            let neighbours = [index.checked_sub(1), Some(index + 1)].map(|index| {
                let neighbour = index.and_then(|index| ids.get(index));
                neighbour.and_then(|id| self.indices.get(*id))
            });
            let uses =
                |colour: &usize| self.indices.values().filter(|used| *used == colour).count();
            let colour = (0..SESSION_COLOURS.len())
                .min_by_key(|colour| (neighbours.contains(&Some(colour)), uses(colour)));
            self.indices.insert((*id).clone(), colour.unwrap_or_default());
        }
    }

    /// The colour of a session; `None` if it is not shown.
    pub(crate) fn get(&self, session: &SessionId) -> Option<Color32> {
        self.indices.get(session).map(|colour| SESSION_COLOURS[*colour])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::fixtures::{session_id, session_status, snapshot_of},
        model::{Role, SessionKind},
    };

    fn shown(names: &[&str]) -> Snapshot {
        let one = |name: &&str| session_status(name, SessionKind::FIVE[0], Role::Opener, 0);
        snapshot_of(names.iter().map(one).collect())
    }

    #[test]
    fn a_session_keeps_its_colour_when_others_end_and_a_new_one_gets_the_free_colour() {
        let mut colours = SessionColours::default();
        colours.update(&shown(&["a", "b", "c", "d", "e"]));
        let of = |colours: &SessionColours, name| colours.get(&session_id(name));
        let five = ["a", "b", "c", "d", "e"].map(|name| of(&colours, name));
        assert_eq!(five, SESSION_COLOURS.map(Some));
        colours.update(&shown(&["a", "c", "d", "e"]));
        let four = ["a", "c", "d", "e"].map(|name| of(&colours, name));
        assert_eq!(four, [five[0], five[2], five[3], five[4]]);
        assert_eq!(of(&colours, "b"), None);
        colours.update(&shown(&["a", "c", "d", "e", "f"]));
        assert_eq!(of(&colours, "f"), five[1], "the free colour");
    }

    #[test]
    fn a_session_between_two_others_differs_from_both() {
        assert_no_new_session_has_a_neighbours_colour(vec![vec![2], vec![0, 2]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_new_session_never_has_a_neighbours_colour(
            steps in prop::collection::vec(prop::collection::vec(0..30_usize, 0..12), 1..6)
        ) {
            assert_no_new_session_has_a_neighbours_colour(steps);
        }
    }

    /// Each step lists the numbers of the sessions that are shown.
    fn assert_no_new_session_has_a_neighbours_colour(steps: Vec<Vec<usize>>) {
        let mut colours = SessionColours::default();
        for step in steps {
            let names: std::collections::BTreeSet<_> = step.into_iter().collect();
            let names: Vec<_> = names.iter().map(|name| format!("s{name}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let before: Vec<_> = names.iter().map(|name| colours.get(&session_id(name))).collect();
            colours.update(&shown(&names));
            for (index, name) in names.iter().enumerate() {
                let now = colours.get(&session_id(name));
                assert!(before[index].is_none() || before[index] == now, "kept");
                let next = names.get(index + 1).map(|name| colours.get(&session_id(name)));
                let both_old =
                    before[index].is_some() && before.get(index + 1).is_some_and(Option::is_some);
                assert!(both_old || next != Some(now), "{names:?}: {colours:?}");
            }
        }
    }
}
