// Every sentence that a person reads on the page. The other modules name them.

const MEDIA = { audio: 'sound', video: 'video', data: 'chat' };

/** What a session of this kind is, in a few words. */
export function kindOf({ media, direction }) {
  const what = ['video', 'audio'].find((medium) => media.includes(medium)) ?? 'text';
  const name = {
    'one-way': `${what} broadcast`, 'one-to-one': `private ${what} call`, 'one-to-many': `${what} call with the host`,
    'many-to-many': `${what} conference`,
  }[direction];
  const silent = what === 'video' && !media.includes('audio') ? ', without sound' : '';
  return name[0].toUpperCase() + name.slice(1) + silent;
}

/** The button by which a viewer comes in. */
export const watch = ({ media }) => (media.includes('video') ? 'Watch' : media.includes('audio') ? 'Listen' : 'Read');

/** How many are there, before one joins. */
export function present(count, { direction }) {
  if (direction === 'one-way') return 'It is live now.';
  return count === 1 ? 'One person is here.' : `${count} people are here.`;
}

/** How many are in the call. Viewers do not learn of each other. */
export const people = (count, { direction }) => (direction === 'one-way' ? '' : count === 1 ? 'Only you' : `${count} people`);

export const front = {
  asking: ['Looking for the session…', ''],
  closed: ['The session is not open yet', 'This page notices when it opens.'],
  unreachable: ['The hub does not answer', 'The computer that carries this session may be off. Trying again…'],
  viewer: ['Ready to watch?', 'You only receive. Nobody sees or hears you, and your browser asks for nothing.'],
  speaker: ['How do you want to come in?', ''],
  joining: ['Joining…', ''],
  waiting: ['Waiting for the host', 'You are in as soon as the session opens.'],
};

/** Why the page cannot work at all. */
export const unable = {
  webrtc: ['This browser cannot make calls', 'It has no WebRTC. Try a recent Chrome, Edge, Firefox or Safari.'],
  h264: 'This browser cannot show the video',
};

/** Why the session is over for this page, and what the button does. */
export const over = {
  left: ['You have left', 'You can come back while the session is open.', 'Join again'],
  ended: ['The session has ended', 'The host has closed it.', 'Look again'],
  ejected: ['You were removed', 'The host removed you. You can come again in ten minutes.', 'Try again'],
  full: ['No seat is free', 'It is full, or lets nobody new in.', 'Try again'],
  refused: ['The hub does not let you in', '', 'Try again'],
  busy: ['Too many at once', 'Many people at your address are joining. Wait some seconds.', 'Try again'],
  replaced: ['You are here in another tab', 'A copy of this tab has taken its place.', 'Use this tab'],
};

/** What a browser without H.264 is told. */
export function noH264(agent, rest) {
  const why = agent.includes('Firefox')
    ? 'Firefox is still fetching its H.264 plugin, or may not (Add-ons › Plugins). Try again in a minute.'
    : 'This browser cannot show H.264, the format of the video. Chrome, Edge and Safari can.';
  return rest.length ? `${why} Until then you have ${rest.map((medium) => MEDIA[medium]).join(' and ')}.` : why;
}

/** Why there is no camera, and the address that has one. */
export const insecure = (there) => `Without https a page gets no camera or microphone. You can watch and listen${there ? `, and speak at https://${there}` : ''}.`;

/** The state of a device, below its switch. */
export function device(name, { state, error, label }) {
  const where = label ? `“${label}”` : `the ${name}`;
  const sentence = {
    asking: `Your browser is asking whether this page may use your ${name}. Please answer there.`,
    starting: `Starting the ${name}…`,
    refused: `The browser does not allow the ${name}. Allow it at the icon beside the address, and switch it on again.`,
    missing: `No ${name} was found. You can go on without.`,
    busy: `Another program is using ${where}. Close it there, choose another one, or go on without.`,
    failed: `The ${name} did not start. Choose another one, or go on without.`,
    lost: `${where} was unplugged.`,
  }[state] ?? '';
  return sentence && error && state !== 'refused' ? `${sentence} (${error})` : sentence;
}

/** What is written where the own picture would be. */
export function preview(needs, hasCamera, hasMicrophone) {
  if (hasCamera || (!needs.camera && hasMicrophone)) return '';
  if (!needs.camera) return 'Your microphone is off';
  return hasMicrophone ? 'Your camera is off' : 'Camera and microphone are off';
}

export const use = (needs) => (needs.camera ? 'Use camera and microphone' : 'Use the microphone');

/** What is written on a tile. */
export const tile = {
  connecting: 'Connecting…',
  reconnecting: 'Reconnecting…',
  away: 'Away',
  failed: 'No connection; trying again. Perhaps a firewall blocks UDP between you.',
  noVideo: 'Their video cannot be shown here',
  you: 'You',
  host: 'host',
};

export const alone = {
  host: ['The host is not here at the moment', 'It goes on as soon as the host is back.'],
  other: ['Nobody else is here yet', 'Send the link to those you want to meet.'],
};

export const banner = {
  hub: (seconds) => `The connection to the hub is lost; trying again in ${seconds} s. The call goes on.`,
  opener: 'The host is away. The session goes on when the host is back.',
  sound: 'Your browser holds the sound back.',
};

/** What is announced. */
export const said = {
  joined: (name) => `${name} joined`,
  left: (name) => `${name} left`,
  away: (name) => `${name} is away`,
  back: (name) => `${name} is back`,
  device: (kind, isOn) => `Your ${kind} is ${isOn ? 'on' : 'off'}`,
  copied: 'The link is copied',
  owner: () => 'You are the host now',
  lost: 'Some messages were not delivered',
  text: (name, text) => `${name}: ${text}`,
};

export const noReader = 'Nobody is here to read it yet.';
export const copyByHand = 'The link of this session:';
