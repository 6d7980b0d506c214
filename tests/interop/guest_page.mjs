// Chromium opens the page of a session, for each kind of session and each role, and in a conference of three.
//
//     cargo build --release
//     node tests/interop/guest_page.mjs [--seconds 6] [--quintet target/release/quintet] [--screenshots DIR] [CASE...]
//
// Needs Node 20 and `chromium` (or CHROMIUM=path). Prints one line for each case, and fails with the first that is wrong.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { Browser } from './cdp.mjs';
import { Quintet } from './quintet.mjs';

const args = process.argv.slice(2);
const option = (name, usual) => {
  const at = args.indexOf(`--${name}`);
  return at < 0 ? usual : args.splice(at, 2)[1];
};
const program = option('quintet', 'target/release/quintet');
const seconds = Number(option('seconds', 6));
const screenshots = option('screenshots', '');
if (screenshots) mkdirSync(screenshots, { recursive: true });

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const PICTURE = `document.querySelector('.tile:not(.own)[data-video]')`;
const SOUND = `document.querySelector('.tile:not(.own)[data-talking]')`;
const READY = `document.querySelector('#enter').checkVisibility()`;

/** A program that has opened a session of this kind. */
async function open(kind, listen = '127.0.0.1:0', more = []) {
  const opener = new Quintet(program, [
    'open', '--kind', kind, '--id', 'town-hall', '--listen', listen, '--name', 'Olga',
    '--camera', 'pattern:640x360@30', '--microphone', 'tone:440', '--speaker', 'none', ...more,
  ]);
  const { hub } = await opener.event('listening');
  await opener.event('opened');
  return { opener, link: `${hub}/s/town-hall` };
}

/** Frames that the page's connections have decoded and sent, and the sound that they have received. */
const counts = (page) => page.value(`(async () => {
  const total = { decoded: 0, sent: 0, samples: 0, concealed: 0 };
  for (const connection of watched.connections) {
    for (const one of (await connection.getStats()).values()) {
      if (one.type === 'inbound-rtp' && one.kind === 'video') total.decoded += one.framesDecoded ?? 0;
      if (one.type === 'outbound-rtp' && one.kind === 'video') total.sent += one.framesSent ?? 0;
      if (one.type !== 'inbound-rtp' || one.kind !== 'audio') continue;
      total.samples += one.totalSamplesReceived ?? 0;
      total.concealed += one.concealedSamples ?? 0;
    }
  }
  return total;
})()`);

/** What the program's newest statistics say of its only participant: frames sent to it and decoded of it. */
function atProgram(opener) {
  const { participants } = opener.events.findLast(({ event }) => event === 'stats').sessions[0];
  const [one] = participants;
  const sent = one?.rtc.find(({ type, kind }) => type === 'outbound-rtp' && kind === 'video')?.framesSent ?? 0;
  return { sent, decoded: one?.video?.decoded ?? 0, level: one?.audio?.level_dbfs ?? -Infinity };
}

async function shoot(page, name) {
  if (screenshots) await page.screenshot(path.join(screenshots, `${name}.png`));
}

/** A page of the link, at the screen before the call. */
async function visit(browser, link, options) {
  const page = await browser.open(link, options);
  await page.until(READY);
  assert.equal(await page.value('watched.captures'), 0, 'nothing is asked for before a press');
  return page;
}

/** One session of this kind: a page without devices, or one that uses those that the kind needs. */
async function kindCase(browser, kind, isMember) {
  const { opener, link } = await open(kind);
  try {
    const page = await visit(browser, link);
    const [hasVideo, isOneWay] = [/av|video/.test(kind), /broadcast/.test(kind)];
    await shoot(page, `${kind}-front`);
    if (isMember) {
      await page.press('#use');
      await page.until(`!document.querySelector('#pre-microphone').hasAttribute('data-off')`);
    }
    await page.press('#enter');
    const first = await page.until(hasVideo ? PICTURE : SOUND);
    await sleep(1500);
    const [before, sentBefore] = [await counts(page), atProgram(opener)];
    await sleep(seconds * 1000);
    const [after, sentAfter] = [await counts(page), atProgram(opener)];
    await shoot(page, `${kind}-${isMember ? 'member' : 'viewer'}`);
    const [decoded, sent] = [after.decoded - before.decoded, sentAfter.sent - sentBefore.sent];
    if (hasVideo) assert.ok(sent > 0 && decoded >= 0.8 * sent, `${decoded} of ${sent} frames are decoded`);
    if (isMember) {
      assert.ok(sentAfter.level > -60, 'the program hears the page');
      const of = [after.sent - before.sent, sentAfter.decoded - sentBefore.decoded];
      if (hasVideo) assert.ok(of[1] >= 0.8 * of[0] - 15, `${of[1]} of ${of[0]} frames of the page are decoded`);
    }
    const captures = await page.value('watched.captures');
    assert.equal(captures > 0, isMember, `${captures} calls for devices`);
    if (isOneWay) assert.equal(await page.value(`document.querySelector('#microphone').hidden`), true);
    await page.press('#leave');
    await page.until(`document.querySelector('#headline').textContent === 'You have left'`);
    assert.deepEqual(page.faults, []);
    await page.close();
    return `first ${hasVideo ? 'picture' : 'sound'} ${first.toFixed(0)} ms, ${hasVideo ? `${decoded} of ${sent} frames` : 'sound'}`;
  } finally {
    opener.stop();
  }
}

/** A conference of a program and two pages, each of which sees, hears and reads both others. */
async function mesh(browser) {
  const { opener, link } = await open('audio+video+data/many-to-many');
  try {
    const pages = [];
    for (const [name, options] of [['Ben', { dark: true }], ['Carla', { width: 390, height: 800, mobile: true }]]) {
      const page = await visit(browser, link, options);
      await page.value(`document.querySelector('#name').value = '${name}'`);
      await page.press('#use');
      await page.until(`document.querySelector('#mirror').hasAttribute('data-on')`);
      await page.press('#enter');
      pages.push(page);
    }
    for (const page of pages) {
      await page.until(`document.querySelectorAll('.tile:not(.own)[data-video]').length === 2`, 40);
      await page.until(`document.querySelectorAll('.tile:not(.own)[data-talking]').length > 0`);
    }
    await pages[0].press('#chat-open');
    await pages[0].value(`document.querySelector('#text').value = 'Hello <b>all</b>'; document.querySelector('#write').requestSubmit()`);
    await pages[1].until(`document.querySelector('#lines').innerText.includes('Hello <b>all</b>')`);
    const message = await opener.event('message');
    assert.deepEqual([message.name, message.text], ['Ben', 'Hello <b>all</b>']);
    await pages[1].press('#camera');
    await pages[0].until(`document.querySelectorAll('.tile:not(.own)[data-video]').length === 1`);
    await pages[1].press('#camera');
    await pages[0].until(`document.querySelectorAll('.tile:not(.own)[data-video]').length === 2`);
    await pages[0].press('#microphone');
    await pages[1].until(`document.querySelector('[aria-label="Ben, muted"]')`);
    await sleep(1000);
    for (const [at, page] of pages.entries()) await shoot(page, `mesh-${at}`);
    await pages[0].close();
    await pages[1].until(`document.querySelectorAll('.tile:not(.own)').length === 1`, 90);
    assert.deepEqual(pages[1].faults, []);
    return 'sees, hears and reads';
  } finally {
    opener.stop();
  }
}

/** The hub is killed in a call: media go on, and the page says so and comes back when the hub does. */
async function hubRestart(browser) {
  const hub = () => new Quintet(program, ['serve', '--listen', '127.0.0.1:17340']);
  let serving = hub();
  await serving.event('listening');
  const opener = new Quintet(program, [
    'open', '--hub', 'http://127.0.0.1:17340', '--kind', 'av-conference', '--id', 'town-hall',
    '--camera', 'pattern:640x360@30', '--microphone', 'tone:440', '--speaker', 'none',
  ]);
  try {
    await opener.event('opened');
    const page = await visit(browser, 'http://127.0.0.1:17340/s/town-hall');
    await page.press('#enter');
    await page.until(PICTURE);
    serving.stop();
    await page.until(`document.querySelector('#banner').innerText.includes('trying again')`);
    const before = await counts(page);
    await sleep(2000);
    assert.ok((await counts(page)).decoded > before.decoded + 20, 'media go on');
    serving = hub();
    await page.until(`document.querySelector('#banner').hidden`, 30);
    const connections = await page.value('watched.connections.length');
    await sleep(4000);
    assert.equal(await page.value('watched.connections.length'), connections, 'nothing is offered anew');
    return 'media go on';
  } finally {
    opener.stop();
    serving.stop();
  }
}

/** A browser without H.264 has sound, and a sentence. */
async function noH264(browser) {
  const { opener, link } = await open('av-conference');
  const before = `for (const end of [RTCRtpReceiver, RTCRtpSender]) {
    const own = end.getCapabilities.bind(end);
    end.getCapabilities = (kind) => ({ ...own(kind), codecs: own(kind).codecs.filter(({ mimeType }) => !/h264/i.test(mimeType)) });
  }
  const answer = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = async function set(description) {
    await answer.call(this, description);
    for (const one of this.getTransceivers()) {
      if (one.receiver.track.kind === 'video') one.setCodecPreferences(RTCRtpReceiver.getCapabilities('video').codecs);
    }
  };`;
  try {
    const page = await visit(browser, link, { before });
    const notice = await page.value(`document.querySelector('#notice').textContent`);
    assert.match(notice, /cannot show H\.264.*Until then you have sound/);
    await page.press('#enter');
    await page.until(SOUND);
    await page.until(`document.querySelector('.tile .state').textContent === 'Their video cannot be shown here'`);
    await shoot(page, 'no-h264');
    return 'sound and a sentence';
  } finally {
    opener.stop();
  }
}

/** A browser whose devices answer as `answer` says: a function of what is asked for, which may throw. */
const withDevices = (answer) => `{
  const own = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const refuse = (name) => { throw new DOMException('', name); };
  navigator.mediaDevices.getUserMedia = async (wanted) => { await (${answer})(wanted, refuse); return own(wanted); };
  navigator.permissions.query = async () => ({ state: 'prompt' });
}`;

/** What people complain about at other pages: each device fails alone, in words, and nobody is kept out. */
async function complaints(browser) {
  const { opener, link } = await open('av-conference');
  const note = `document.querySelector('#device-note').textContent`;
  const off = (kind) => `document.querySelector('#pre-${kind}').hasAttribute('data-off')`;
  try {
    for (const [answer, sentence] of [
      ["(wanted, refuse) => refuse('NotFoundError')", 'No camera was found'],
      ["(wanted, refuse) => refuse('NotReadableError')", 'Another program is using the camera'],
      ["(wanted, refuse) => refuse('NotAllowedError')", 'The browser does not allow the microphone'],
      ["() => new Promise(() => {})", 'Your browser is asking'],
    ]) {
      const page = await visit(browser, link, { before: withDevices(answer) });
      await page.press('#use');
      await page.until(`${note}.includes('${sentence}')`);
      await page.press('#enter');
      await page.until(PICTURE);
      await page.press('#leave');
      await page.until(`document.querySelector('#headline').textContent === 'You have left'`);
      await page.close();
    }
    const deaf = await visit(browser, link, { before: withDevices("({ video }, refuse) => video && refuse('NotAllowedError')") });
    await deaf.press('#use');
    await deaf.until(`!${off('microphone')} && ${off('camera')} && ${note}.includes('does not allow the camera')`);
    await deaf.close();
    // The press is answered at once, and a camera that is switched off goes out.
    const page = await visit(browser, link, { before: withDevices('() => new Promise((resolve) => { globalThis.answer = resolve; })') });
    await page.press('#pre-camera');
    await page.until(`globalThis.answer && document.querySelector('#pre-camera').ariaBusy === 'true'`);
    await page.value('answer()');
    await page.until(`!${off('camera')}`);
    await page.value(`globalThis.track = document.querySelector('#mirror').srcObject.getVideoTracks()[0]`);
    await page.press('#pre-camera');
    await page.until(`track.readyState === 'ended' && ${off('camera')}`);
    await page.close();
    const silent = await visit(browser, link, { before: `{
      const own = HTMLMediaElement.prototype.play;
      Object.defineProperty(HTMLMediaElement.prototype, 'autoplay', { set() {} });
      HTMLMediaElement.prototype.play = function play() {
        return this.muted || globalThis.pressed ? own.call(this) : Promise.reject(new DOMException('', 'NotAllowedError'));
      };
    }` });
    await silent.press('#enter');
    await silent.until(PICTURE);
    await silent.value('globalThis.pressed = true');
    await silent.press('#banner-button');
    await silent.until(`document.querySelector('.tile video').muted === false && document.querySelector('#banner').hidden`);
    assert.equal(await silent.value(`document.querySelector('.tile video').paused`), false);
    await silent.close();
    return 'each in words';
  } finally {
    opener.stop();
  }
}

/** An address of this machine that is not loopback. */
function otherAddress() {
  const all = Object.values(os.networkInterfaces()).flat();
  return all.find(({ family, internal }) => family === 'IPv4' && !internal)?.address;
}

/** On plain http from another address there are no devices, and one watches all the same. */
async function insecure(browser) {
  const address = otherAddress();
  if (!address) return 'skipped, since this machine has one address only';
  const { opener, link } = await open('av-conference', '0.0.0.0:0');
  try {
    const page = await visit(browser, link.replace(/\/\/[^:/]+/, `//${address}`));
    assert.equal(await page.value('isSecureContext'), false);
    assert.match(await page.value(`document.querySelector('#notice').textContent`), /Without https/);
    assert.equal(await page.value(`document.querySelector('#preview').hidden`), true);
    await page.press('#enter');
    await page.until(PICTURE);
    assert.equal(await page.value(`document.querySelector('#microphone').hidden`), true);
    return 'watches';
  } finally {
    opener.stop();
  }
}

/** From another address the page has devices by https, at a hub that signs its certificate itself. */
async function secure(browser) {
  const address = otherAddress();
  if (!address) return 'skipped, since this machine has one address only';
  const { opener, link } = await open('av-conference', '0.0.0.0:0', ['--tls-self-signed']);
  // Somebody who goes on after the warning.
  const trusting = new Browser(['--ignore-certificate-errors']);
  try {
    const there = link.replace(/.*:(\d+)/, `${address}:$1`);
    const plain = await visit(browser, `http://${there}`);
    assert.match(await plain.value(`document.querySelector('#notice').textContent`), new RegExp(`speak at https://${there}`));
    const page = await visit(trusting, `https://${there}`);
    assert.equal(await page.value('isSecureContext'), true);
    await page.press('#use');
    await page.until(`!document.querySelector('#pre-camera').hasAttribute('data-off')`);
    await page.press('#enter');
    await page.until(PICTURE);
    await opener.event('first-frame');
    assert.deepEqual(page.faults, []);
    return 'sees and is seen';
  } finally {
    opener.stop();
    await trusting.close();
  }
}

/** The page waits for a session, and says that it is full, has ended, or goes on in another tab. */
async function states(browser) {
  const headline = (text) => `document.querySelector('#headline').textContent === '${text}'`;
  const asks = headline('How do you want to come in?');
  const serving = new Quintet(program, ['serve', '--listen', '127.0.0.1:0']);
  const { hub } = await serving.event('listening');
  const openAt = (id, kind) => new Quintet(program, [
    'open', '--hub', hub, '--id', id, '--kind', kind, '--microphone', 'tone:440', '--camera', 'none', '--speaker', 'none',
  ]);
  const programs = [serving];
  try {
    const early = await browser.open(`${hub}/s/chat`);
    await early.until(headline('The session is not open yet'));
    programs.push(openAt('line', 'audio/one-to-one'));
    await programs[1].event('opened');
    const [first, second] = [await visit(browser, `${hub}/s/line`), await visit(browser, `${hub}/s/line`)];
    await first.press('#enter');
    await first.until(SOUND);
    await second.until(headline('No seat is free'));
    await first.press('#leave');
    await second.until(asks);
    await second.press('#enter');
    await second.until(SOUND);
    programs[1].child.kill('SIGTERM');
    await second.until(headline('The session has ended'));
    programs.push(openAt('chat', 'data/many-to-many'));
    await early.until(asks);
    await early.press('#enter');
    await early.until(`document.querySelector('.tile')`);
    const token = await early.value('JSON.stringify({ ...sessionStorage })');
    const copy = await visit(browser, `${hub}/s/chat`, {
      before: `for (const [key, value] of Object.entries(${token})) sessionStorage.setItem(key, value);`,
    });
    await copy.press('#enter');
    await early.until(headline('You are here in another tab'));
    await sleep(2000);
    assert.equal(await copy.value(`document.querySelectorAll('.tile:not(.own)').length`), 1, 'they do not fight');
    return 'each with its sentence';
  } finally {
    for (const one of programs) one.stop();
  }
}

const KINDS = ['av-conference', 'av-broadcast', 'audio-conference', 'audio-broadcast', 'video-broadcast'];
const cases = new Map([
  ...KINDS.map((kind) => [`${kind}, viewer`, (browser) => kindCase(browser, kind, false)]),
  ...KINDS.filter((kind) => /conference/.test(kind)).map((kind) => [`${kind}, member`, (browser) => kindCase(browser, kind, true)]),
  ['mesh of a program and two pages', mesh],
  ['hub killed and started again', hubRestart],
  ['browser without H.264', noH264],
  ['devices that are not there', complaints],
  ['plain http from another address', insecure],
  ['https from another address', secure],
  ['waiting, full, ended', states],
]);

const browser = new Browser();
try {
  for (const [name, run] of cases) {
    if (args.length && !args.some((part) => name.includes(part))) continue;
    console.log(`${name.padEnd(34)} ${await run(browser)}`);
  }
} finally {
  await browser.close();
}
