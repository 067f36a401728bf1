/*
 * The same changes as authkey-milter makes to a message with a valid key, on
 * libmilter and without any work: the first X-Auth-Key is deleted, and an
 * Authentication-Results field inserted. Like authkey-milter it asks for no
 * reply before the end of the message, for no body, and for few macros.
 *
 * cc -O2 -o filter filter.c -lmilter -lpthread; ./filter unix:/path/of/socket
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <libmilter/mfapi.h>

struct message {
	int keys;
};

static sfsistat negotiate(SMFICTX *ctx, unsigned long actions, unsigned long steps,
    unsigned long f2, unsigned long f3, unsigned long *want_actions,
    unsigned long *want_steps, unsigned long *want_f2, unsigned long *want_f3)
{
	(void)f2, (void)f3;
	if (smfi_setsymlist(ctx, SMFIM_CONNECT, "j {daemon_name} {client_addr} _") != MI_SUCCESS ||
	    smfi_setsymlist(ctx, SMFIM_ENVFROM, "i {auth_authen}") != MI_SUCCESS ||
	    smfi_setsymlist(ctx, SMFIM_EOM, "i") != MI_SUCCESS ||
	    smfi_setsymlist(ctx, SMFIM_EOH, "{authkey_none}") != MI_SUCCESS)
		return SMFIS_REJECT;
	*want_actions = actions & (SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE | SMFIF_SETSYMLIST);
	*want_steps = steps & (SMFIP_NOBODY | SMFIP_NODATA | SMFIP_NOUNKNOWN | SMFIP_NOHELO |
	    SMFIP_NOEOH | SMFIP_NR_HDR | SMFIP_NR_CONN | SMFIP_NR_MAIL | SMFIP_NR_RCPT);
	*want_f2 = 0;
	*want_f3 = 0;
	return SMFIS_CONTINUE;
}

static sfsistat on_connect(SMFICTX *ctx, char *host, _SOCK_ADDR *addr)
{
	(void)ctx, (void)host, (void)addr;
	return SMFIS_NOREPLY;
}

static sfsistat on_mail(SMFICTX *ctx, char **args)
{
	struct message *m = smfi_getpriv(ctx);

	(void)args;
	if (m == NULL) {
		if ((m = malloc(sizeof *m)) == NULL)
			return SMFIS_TEMPFAIL;
		smfi_setpriv(ctx, m);
	}
	m->keys = 0;
	return SMFIS_NOREPLY;
}

static sfsistat on_rcpt(SMFICTX *ctx, char **args)
{
	(void)ctx, (void)args;
	return SMFIS_NOREPLY;
}

static sfsistat on_header(SMFICTX *ctx, char *name, char *value)
{
	struct message *m = smfi_getpriv(ctx);

	(void)value;
	if (m != NULL && strcasecmp(name, "X-Auth-Key") == 0)
		m->keys++;
	return SMFIS_NOREPLY;
}

static sfsistat on_end(SMFICTX *ctx)
{
	struct message *m = smfi_getpriv(ctx);

	if (m == NULL)
		return SMFIS_TEMPFAIL;
	for (; m->keys > 0; m->keys--)
		if (smfi_chgheader(ctx, "X-Auth-Key", m->keys, NULL) != MI_SUCCESS)
			return SMFIS_TEMPFAIL;
	if (smfi_insheader(ctx, 0, "Authentication-Results",
	    "mx.test;\n\tx-authkey=pass smtp.mailfrom=user+0000000@bench.test") != MI_SUCCESS)
		return SMFIS_TEMPFAIL;
	return SMFIS_ACCEPT;
}

static sfsistat on_close(SMFICTX *ctx)
{
	free(smfi_getpriv(ctx));
	smfi_setpriv(ctx, NULL);
	return SMFIS_CONTINUE;
}

int main(int argc, char **argv)
{
	struct smfiDesc filter = {
		.xxfi_name = "bench",
		.xxfi_version = SMFI_VERSION,
		.xxfi_flags = SMFIF_ADDHDRS | SMFIF_CHGHDRS | SMFIF_QUARANTINE | SMFIF_SETSYMLIST,
		.xxfi_connect = on_connect,
		.xxfi_envfrom = on_mail,
		.xxfi_envrcpt = on_rcpt,
		.xxfi_header = on_header,
		.xxfi_eom = on_end,
		.xxfi_close = on_close,
		.xxfi_negotiate = negotiate,
	};

	if (argc != 2) {
		fprintf(stderr, "usage: filter SOCKET\n");
		return 2;
	}
	if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
		return 1;
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
