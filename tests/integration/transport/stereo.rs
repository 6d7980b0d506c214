//! To whom music of two channels is sent (RFC 7587, section 7), between two connections.

use quintet::{
    model::Direction::{RecvOnly, SendOnly},
    transport::Impairment,
};

use super::pair::{Pair, audio_video};

/// Whether the offerer sends two channels, and whether the answerer would. `change` changes the answer.
async fn takes_stereo(change: impl Fn(&str) -> String) -> [bool; 2] {
    let mut pair = Pair::impaired([SendOnly, RecvOnly].map(audio_video), Impairment::NONE);
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&change(&answer));
    pair.until_connected().await;
    [&pair.a, &pair.b].map(|end| end.connection.takes_stereo()())
}

#[tokio::test(start_paused = true)]
async fn two_channels_are_sent_to_this_program_and_to_who_asks_for_them_only() {
    assert_eq!(takes_stereo(str::to_owned).await, [true, true]);
    for (parameter, expected) in [("x=1", false), ("stereo=1", true), ("stereo=0", false)] {
        let change = |answer: &str| answer.replace("sprop-stereo=1", parameter);
        assert_eq!(takes_stereo(change).await, [expected, true], "{parameter}");
    }
}
