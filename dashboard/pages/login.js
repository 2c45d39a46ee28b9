// Asks for the token, when the service wants one.

import { get, token } from '../lib/api.js';
import { field, fill, h } from '../lib/dom.js';

export function show(main, done) {
  const input = h('input', { type: 'password', autocomplete: 'current-password', required: true, 'aria-describedby': 'login-hint' });
  const problem = h('p.problem', { role: 'alert' });
  const form = h('form.card.login', {
    onsubmit: async (event) => {
      event.preventDefault();
      token.set(input.value.trim());
      try {
        await get('health');
        done();
      } catch (error) {
        token.set('');
        fill(problem, error.kind === 'login' ? 'That is not a token of this service.' : error.message);
        input.select();
      }
    },
  },
  h('h1', {}, 'Log in'),
  h('p', { id: 'login-hint' }, 'This service wants a token: the value of api_token or admin_token in [server] of its configuration. It is kept in this tab until you close it. Actions need the admin token when there is one.'),
  field('Token', input), problem, h('p', {}, h('button.primary', { type: 'submit' }, 'Log in')));
  fill(main, form);
  input.focus();
}
